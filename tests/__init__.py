"""Tests of the whole project: test_<module>.py, and what they share."""
