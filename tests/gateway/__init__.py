"""The sidecar behind real gateways: Envoy and nginx, with real upstreams."""
