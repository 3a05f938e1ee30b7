"""The edge: servicers, the conversion between protobuf and the domain, and errors on the wire. Only this package sees protobuf."""
