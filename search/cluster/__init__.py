"""Ray: the connection, the workers, and Tune executing what the study asks for."""
