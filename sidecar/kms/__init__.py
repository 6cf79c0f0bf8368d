"""Key management services: one file for each, each a `ports.Kms`."""
