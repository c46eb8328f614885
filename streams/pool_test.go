package streams

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// What is given back is used again, what would be too much is not kept, and nobody gets less room than was asked for.
func TestPool(t *testing.T) {
	p := &pool{}
	first := p.GetRecords(500)
	p.PutRecords(first)
	if again := p.GetRecords(300); &again[0] != &first[0] {
		t.Error("500 records are not used again for 300")
	}
	p.PutRecords(first)
	if more := p.GetRecords(501); len(more) < 501 {
		t.Errorf("501 records have room for %d", len(more))
	}

	compressed := make([]byte, 1<<20)
	for range 10 {
		p.PutDecompressBytes(make([]byte, inflation*len(compressed)))
	}
	if p.bytes.bytes > maxIdle {
		t.Errorf("%d bytes wait, at most %d may", p.bytes.bytes, maxIdle)
	}
	for range maxIdle / (inflation * len(compressed)) {
		p.GetDecompressBytes(compressed, kgo.CodecLz4)
	}
	if p.bytes.bytes != 0 {
		t.Errorf("%d bytes wait after all were taken", p.bytes.bytes)
	}
}
