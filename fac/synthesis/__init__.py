"""Training data by methods: `methods` has one file per row of the tables, `writer` what every method writes with."""
