"""What `make bench` measures, and how: cases as data, a runner for each group, and what is made of the figures."""
