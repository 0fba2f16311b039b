"""Run the tests on several sets of versions, and write the page that says which were run."""
