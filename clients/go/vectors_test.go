package headrace_test

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"headrace.dev/go"
)

func vectors(t *testing.T, _ context.Context, _ *headrace.Client) {
	folder := os.Getenv("HEADRACE_VECTORS")
	var index []struct{ Name, Type string }
	must(t, json.Unmarshal(contents(t, folder, "index.json"), &index))
	if len(index) < 50 {
		t.Fatalf("there are only %d vectors", len(index))
	}
	for _, vector := range index {
		kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(vector.Type))
		must(t, err)
		binary, decoded, fromJSON := contents(t, folder, vector.Name+".binpb"), kind.New().Interface(), kind.New().Interface()
		must(t, proto.Unmarshal(binary, decoded))
		encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(decoded)
		must(t, err)
		if encoded = inOrder(encoded, kind.Descriptor()); !bytes.Equal(encoded, binary) {
			t.Errorf("%s is encoded as %x", vector.Name, encoded)
		}
		must(t, protojson.Unmarshal(contents(t, folder, vector.Name+".json"), fromJSON))
		if !proto.Equal(decoded, fromJSON) {
			t.Errorf("%s is another message in JSON", vector.Name)
		}
	}
}

// inOrder puts the fields of an encoded message in the order of their numbers, as every other language does: Go writes a oneof last.
func inOrder(encoded []byte, message protoreflect.MessageDescriptor) (ordered []byte) {
	fields := map[protowire.Number][]byte{}
	for len(encoded) > 0 {
		number, kind, tagged := protowire.ConsumeTag(encoded)
		size := protowire.ConsumeFieldValue(number, kind, encoded[tagged:])
		value := encoded[tagged : tagged+size]
		if inner := message.Fields().ByNumber(number).Message(); inner != nil {
			content, _ := protowire.ConsumeBytes(value)
			value = protowire.AppendBytes(nil, inOrder(content, inner))
		}
		fields[number] = append(append(fields[number], encoded[:tagged]...), value...)
		encoded = encoded[tagged+size:]
	}
	for _, number := range slices.Sorted(maps.Keys(fields)) {
		ordered = append(ordered, fields[number]...)
	}
	return ordered
}

func contents(t *testing.T, folder, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(folder, name))
	must(t, err)
	return data
}
