"""The hls4ml back end."""
