"""What the chart brings for Prometheus and Grafana, made from Python: `make monitoring`."""
