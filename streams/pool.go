package streams

import (
	"math/bits"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// pool is the memory of fetched batches, used again when a worker has recycled all records of one: their structs, and what they were
// decompressed into. Records that are never recycled are left to the garbage collector.
//
// Memory is kept by the powers of two of its size, so that a small batch does not hold that of a large one.
type pool struct {
	records classes[kgo.Record]
	bytes   classes[byte]
}

// Batches below these sizes are not worth the keeping.
const (
	minPooledRecords = 32
	minPooledBytes   = 4 << 10
)

// GetRecords is in kgo.PoolRecords.
func (p *pool) GetRecords(n int) []kgo.Record {
	if n < minPooledRecords {
		return make([]kgo.Record, n)
	}
	return p.records.get(n, 1)
}

// PutRecords is in kgo.PoolRecords.
func (p *pool) PutRecords(r []kgo.Record) {
	if cap(r) >= minPooledRecords {
		p.records.put(r)
	}
}

// How much longer than compressed a batch is taken to be, and, in powers of two, how much longer still is what it may get instead.
const (
	inflation = 4
	slack     = 3
)

// GetDecompressBytes is in kgo.PoolDecompressBytes. What is too short is grown by the client, and comes back grown.
func (p *pool) GetDecompressBytes(compressed []byte, _ kgo.CompressionCodecType) []byte {
	if n := inflation * len(compressed); n >= minPooledBytes {
		return p.bytes.get(n, slack)
	}
	return nil
}

// PutDecompressBytes is in kgo.PoolDecompressBytes.
func (p *pool) PutDecompressBytes(b []byte) {
	if cap(b) >= minPooledBytes {
		p.bytes.put(b)
	}
}

// classes are pools of slices, each of those with room for at least so many elements as its number is the power of two of.
type classes[T any] [bits.UintSize]sync.Pool

// get is a slice with room for n elements, from n's class or one of some above it.
func (c *classes[T]) get(n, above int) []T {
	class := bits.Len(uint(n)) - 1
	for i := class; i <= min(class+above, len(c)-1); i++ {
		s, _ := c[i].Get().(*[]T)
		if s != nil && cap(*s) >= n {
			return *s
		}
		if s != nil {
			c[i].Put(s)
		}
	}
	return make([]T, n)
}

func (c *classes[T]) put(s []T) { c[bits.Len(uint(cap(s)))-1].Put(&s) }

// Recycle gives the records' memory back. Nothing may refer to them, or to their keys and values, any more.
func Recycle(records []*kgo.Record) {
	for _, r := range records {
		r.Recycle()
	}
}
