"""The Envoy door: external authorization (ext_authz), as Envoy, Istio and Envoy Gateway ask for it."""
