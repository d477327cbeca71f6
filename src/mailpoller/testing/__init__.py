"""For authors of plug-ins: fakes, conformance suites, message builders."""
