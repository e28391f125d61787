"""Front ends: one module or package each, with SOURCES (what it reads, in words), accepts(source) and load(source, options)."""
