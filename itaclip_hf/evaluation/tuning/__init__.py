"""Settings chosen on a few labelled images."""
