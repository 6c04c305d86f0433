"""The columnar codec: framed Avro to Arrow (``Decoder``) and back (``Encoder``).

In and out: see ``schemas.decode`` and ``schemas.encode``; this module is the one name that others import.
"""

from schemas.decode import Decoded, Decoder, Refused
from schemas.encode import EncodeError, Encoder
from schemas.readers import SchemaMismatch

__all__ = ["Decoded", "Decoder", "EncodeError", "Encoder", "Refused", "SchemaMismatch"]
