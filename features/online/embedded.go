package online

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/alicebob/miniredis/v2"

	"github.com/millrace/millrace/internal/failure"
)

// Embedded is a Redis in this process. It holds its keys in memory, does not expire them, and writes them to a file when it is
// closed. After a crash it starts from the last such file, or empty; either is an earlier state of the same features, and their
// writers go on from the positions in it.
type Embedded struct {
	server   *miniredis.Miniredis
	snapshot string
}

// StartEmbedded listens on a free port of 127.0.0.1 and loads the snapshot file, which need not exist. A file that cannot be read
// whole is set aside as "<file>.damaged" and Redis starts empty. An empty name keeps no snapshot.
func StartEmbedded(snapshotFile string) (*Embedded, error) {
	e := &Embedded{server: miniredis.NewMiniRedis(), snapshot: snapshotFile}
	if err := e.load(); err != nil {
		return nil, err
	}
	if err := e.server.StartAddr("127.0.0.1:0"); err != nil {
		return nil, failure.Wrap(failure.Unavailable, "redis", "listening", err)
	}
	return e, nil
}

// Addr is the address it listens on.
func (e *Embedded) Addr() string { return e.server.Addr() }

// Close stops it and writes the snapshot, by rename, so that there is always a whole one.
func (e *Embedded) Close() error {
	e.server.Close()
	if e.snapshot == "" {
		return nil
	}
	if err := e.save(); err != nil {
		return failure.Wrap(failure.Unavailable, e.snapshot, "writing the Redis snapshot", err)
	}
	return nil
}

// snapshotMagic starts a snapshot: name and layout version. After it come the strings (tag 's': key, value) and the hashes (tag
// 'h': key, number of fields, then name and value of each), every text behind its length as uvarint, and at the end the CRC-32C of all
// before it, little-endian.
const snapshotMagic = "millrace-redis-1\n"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (e *Embedded) save() error {
	b := []byte(snapshotMagic)
	db := e.server.DB(0)
	for _, key := range db.Keys() {
		switch db.Type(key) {
		case "string":
			value, err := db.Get(key)
			if err != nil {
				return err
			}
			b = appendText(appendText(append(b, 's'), key), value)
		case "hash":
			fields, err := db.HKeys(key)
			if err != nil {
				return err
			}
			b = binary.AppendUvarint(appendText(append(b, 'h'), key), uint64(len(fields)))
			for _, f := range fields {
				b = appendText(appendText(b, f), db.HGet(key, f))
			}
		default:
			return errors.New("key " + key + " is of a type that snapshots do not hold: " + db.Type(key))
		}
	}
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return replaceFile(e.snapshot, b)
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// replaceFile writes a file so that its name always stands for the whole old or the whole new content.
func replaceFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func (e *Embedded) load() error {
	if e.snapshot == "" {
		return nil
	}
	b, err := os.ReadFile(e.snapshot)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return failure.Wrap(failure.Unavailable, e.snapshot, "reading the Redis snapshot", err)
	}
	if e.restore(b) {
		return nil
	}
	e.server.FlushAll()
	if err := os.Rename(e.snapshot, e.snapshot+".damaged"); err != nil {
		return failure.Wrap(failure.Unavailable, e.snapshot, "setting aside a damaged Redis snapshot", err)
	}
	return nil
}

func (e *Embedded) restore(b []byte) (whole bool) {
	end := len(b) - crc32.Size
	if end < len(snapshotMagic) || !bytes.HasPrefix(b, []byte(snapshotMagic)) ||
		crc32.Checksum(b[:end], castagnoli) != binary.LittleEndian.Uint32(b[end:]) {
		return false
	}
	r := positionBytes{rest: b[len(snapshotMagic):end]}
	for len(r.rest) > 0 && !r.failed {
		tag := r.rest[0]
		r.rest = r.rest[1:]
		key := r.text()
		switch tag {
		case 's':
			r.failed = r.failed || e.server.Set(key, r.text()) != nil
		case 'h':
			for n := r.uvarint(); n > 0 && !r.failed; n-- {
				field := r.text()
				e.server.HSet(key, field, r.text())
			}
		default:
			r.failed = true
		}
	}
	return !r.failed
}
