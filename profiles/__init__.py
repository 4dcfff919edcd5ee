"""What to build and measure: one YAML file per profile."""
