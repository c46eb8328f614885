package streams

import (
	"math/bits"
	"sync"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kgo"
)

// pool is the memory of fetched batches, used again when a worker has recycled all records of one: their structs, and what they were
// decompressed into. Records that are never recycled are left to the garbage collector, and so is what comes back when maxIdle waits already.
// It is no sync.Pool, of which there is one per processor, whose memory nobody bounds, and which every collection empties.
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
	slack     = 1
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

// classes are slices that wait to be used again, each among those with room for at least so many elements as its number is the power of two of.
type classes[T any] struct {
	mu    sync.Mutex
	idle  [bits.UintSize][][]T
	bytes int // of all that wait
}

// maxIdle is the most memory that the slices of one kind take while they wait.
const maxIdle = 8 << 20

// get is a slice with room for n elements, from n's class or one of some above it.
func (c *classes[T]) get(n, above int) []T {
	class := bits.Len(uint(n)) - 1
	c.mu.Lock()
	for i := class; i <= min(class+above, len(c.idle)-1); i++ {
		last := len(c.idle[i]) - 1
		if last < 0 || cap(c.idle[i][last]) < n {
			continue
		}
		s := c.idle[i][last]
		c.idle[i][last] = nil
		c.idle[i] = c.idle[i][:last]
		c.bytes -= sizeOf(s)
		c.mu.Unlock()
		return s
	}
	c.mu.Unlock()
	return make([]T, n)
}

func (c *classes[T]) put(s []T) {
	class := bits.Len(uint(cap(s))) - 1
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bytes+sizeOf(s) <= maxIdle {
		c.bytes += sizeOf(s)
		c.idle[class] = append(c.idle[class], s)
	}
}

func sizeOf[T any](s []T) int {
	var one T
	return cap(s) * int(unsafe.Sizeof(one))
}

// Recycle gives the records' memory back. Nothing may refer to them, or to their keys and values, any more.
func Recycle(records []*kgo.Record) {
	for _, r := range records {
		r.Recycle()
	}
}
