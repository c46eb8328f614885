package streams

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// pool is the memory of fetched batches, used again when a worker has recycled all records of one: their structs, and what they were
// decompressed into. Records that are never recycled are left to the garbage collector.
type pool struct{ records, bytes sync.Pool }

// GetRecords is in kgo.PoolRecords.
func (p *pool) GetRecords(n int) []kgo.Record {
	if r, _ := p.records.Get().(*[]kgo.Record); r != nil && cap(*r) >= n {
		return *r
	}
	return make([]kgo.Record, n)
}

// PutRecords is in kgo.PoolRecords.
func (p *pool) PutRecords(r []kgo.Record) { p.records.Put(&r) }

// GetDecompressBytes is in kgo.PoolDecompressBytes. What is too small is grown by the client, and comes back grown.
func (p *pool) GetDecompressBytes([]byte, kgo.CompressionCodecType) []byte {
	if b, _ := p.bytes.Get().(*[]byte); b != nil {
		return *b
	}
	return nil
}

// PutDecompressBytes is in kgo.PoolDecompressBytes.
func (p *pool) PutDecompressBytes(b []byte) { p.bytes.Put(&b) }

// Recycle gives the records' memory back. Nothing may refer to them, or to their keys and values, any more.
func Recycle(records []*kgo.Record) {
	for _, r := range records {
		r.Recycle()
	}
}
