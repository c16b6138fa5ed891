"""The rows of the dashboard, one file for each subject."""
