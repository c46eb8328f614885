package online

import (
	"hash/crc32"
	"slices"
)

// Partitioner names how the partition of a key is chosen.
type Partitioner string

// The partitioners. Both are the default of their clients for records with a key.
const (
	Murmur2 Partitioner = "murmur2" // the Java client, franz-go, and our own keyed topics
	CRC32   Partitioner = "crc32"   // librdkafka ("consistent_random"), and so confluent-kafka in Python, Go and .NET, and kcat
)

// Partition is the partition of a key by a partitioner.
//
// Sources: org.apache.kafka.common.utils.Utils.murmur2 and BuiltInPartitioner.partitionForKey (sign bit cleared, modulo the count);
// rd_kafka_msg_partitioner_consistent in librdkafka's rdkafka_msg.c (CRC-32 as in IEEE 802.3, unsigned, modulo the count).
func Partition(by Partitioner, key string, partitions int32) int32 {
	if by == CRC32 {
		return int32(crc32IEEE(key) % uint32(partitions))
	}
	return int32(murmur2(key)&0x7fffffff) % partitions
}

// Fitting is the partitioners that put all the given keys where they are, for telling which one producers use.
func Fitting(keys []string, at []int32, partitions int32) []Partitioner {
	return slices.DeleteFunc([]Partitioner{Murmur2, CRC32}, func(by Partitioner) bool {
		for i, key := range keys {
			if Partition(by, key, partitions) != at[i] {
				return true
			}
		}
		return false
	})
}

var ieee = crc32.MakeTable(crc32.IEEE)

// crc32IEEE is crc32.ChecksumIEEE of a string, without making bytes of it.
func crc32IEEE(key string) uint32 {
	sum := ^uint32(0)
	for i := range len(key) {
		sum = ieee[byte(sum)^key[i]] ^ sum>>8
	}
	return ^sum
}

func murmur2(key string) uint32 {
	const (
		seed  uint32 = 0x9747b28c
		m     uint32 = 0x5bd1e995
		shift        = 24
	)
	h := seed ^ uint32(len(key))
	i := 0
	for ; i+4 <= len(key); i += 4 {
		k := uint32(key[i]) | uint32(key[i+1])<<8 | uint32(key[i+2])<<16 | uint32(key[i+3])<<24
		k *= m
		k ^= k >> shift
		k *= m
		h = h*m ^ k
	}
	switch len(key) - i {
	case 3:
		h ^= uint32(key[i+2]) << 16
		fallthrough
	case 2:
		h ^= uint32(key[i+1]) << 8
		fallthrough
	case 1:
		h ^= uint32(key[i])
		h *= m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}
