"""Door to OpenTelemetry, imported only where traces are configured."""
