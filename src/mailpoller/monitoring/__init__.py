"""Figures and health for programs that watch the service."""
