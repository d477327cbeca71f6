"""Real servers and hostile networks that the tests start themselves, on free ports and in directories of their own."""
