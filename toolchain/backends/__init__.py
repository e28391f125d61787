"""Back ends: a module (or package) each, named as boards name it, with emit(graph, plan, board) -> Project."""
