"""What makes an application fit a framework that it finds itself in."""
