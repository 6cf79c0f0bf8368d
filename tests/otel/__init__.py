"""Tests of the door to OpenTelemetry."""
