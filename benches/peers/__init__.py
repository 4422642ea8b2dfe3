"""The same work written with other libraries, as their users would write it."""
