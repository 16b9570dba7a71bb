"""What the tests share: real clusters, real server processes, a raw client. No mocks live here."""
