"""The dashboards as code: `panels` builds what Grafana reads, each other module is one dashboard."""
