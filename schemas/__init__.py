"""The wire: Avro schemas, their catalogue, the columnar codec, and topic records in segments."""
