"""How the engine's parts are put together: once, for the application, for the tests' rig and for the storms alike."""
