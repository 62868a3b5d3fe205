"""A picture world with free ground truth: composed emoji scenes that train and test the embedded checkpoint."""
