"""Build, check and tag a release."""
