"""The vocabulary: what every part, ours or a third party's, may import."""
