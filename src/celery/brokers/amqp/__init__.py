"""RabbitMQ: our own AMQP 0-9-1, pure protocol first (fields, methods, frames, connection), I/O on top."""
