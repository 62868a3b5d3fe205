"""The command line: `itaclip COMMAND`, one module for each command, listed in `main`."""
