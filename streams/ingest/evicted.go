package ingest

// evicted is the entities that a cache has let go of, and some that it takes for one of them: a Bloom filter of two bits an entity
// (B. H. Bloom, "Space/time trade-offs in hash coding with allowable errors", 1970). In a partition that had no events when its worker began, Redis
// has no state of any other entity that the cache does not hold, and need not be asked.
//
// Of 50,000 entities let go of one in a hundred others is taken for one, of 500,000 four in ten: those are asked for in vain.
type evicted struct{ bits []uint64 }

// evictedBits is the size of the filter, 128 KiB; none is made before an entity is let go of.
const evictedBits = 1 << 20

func (f *evicted) add(hash uint64) {
	if f.bits == nil {
		f.bits = make([]uint64, evictedBits/64)
	}
	for _, bit := range evictedAt(hash) {
		f.bits[bit/64] |= 1 << (bit % 64)
	}
}

func (f *evicted) has(hash uint64) bool {
	if f.bits == nil {
		return false
	}
	for _, bit := range evictedAt(hash) {
		if f.bits[bit/64]&(1<<(bit%64)) == 0 {
			return false
		}
	}
	return true
}

func evictedAt(hash uint64) [2]uint64 {
	return [2]uint64{hash % evictedBits, hash >> 32 % evictedBits}
}
