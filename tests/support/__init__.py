"""Helpers of the tests of several packages, and scripts that tests run in other processes."""
