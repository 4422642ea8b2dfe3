"""The tests of clustercore; a package, so that ``tests.reference`` is the one of this checkout."""
