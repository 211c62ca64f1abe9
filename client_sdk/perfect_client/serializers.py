"""What programs written for Prefect import from ``prefect.serializers``."""

from perfect_client.storage.serializers import CompressedSerializer, JSONSerializer, PickleSerializer, Serializer

__all__ = ["CompressedSerializer", "JSONSerializer", "PickleSerializer", "Serializer"]
