package offline

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// topicFile holds the ID of the topic that the offsets of a table's rows are of.
const topicFile = "_topic"

// Topic is the ID of the topic that the offsets of the table's rows are of: the given one, which the table then remembers, unless it remembers another.
func (t *Table) Topic(id string) (string, error) {
	path := filepath.Join(t.dir, topicFile)
	there, err := os.ReadFile(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return string(there), wrapped(path, "reading", err)
	}
	if err := t.remember(path, id); err != nil && !errors.Is(err, fs.ErrExist) { // another process was first
		return "", wrapped(path, "writing", err)
	}
	there, err = os.ReadFile(path)
	return string(there), wrapped(path, "reading", err)
}

// remember puts a whole file in its place, or none.
func (t *Table) remember(path, id string) (err error) {
	if err := t.disk.MkdirAll(t.dir); err != nil {
		return err
	}
	f, err := t.disk.Create(t.dir, topicFile+"-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.disk.Remove(f.Name())) }()
	_, err = f.Write([]byte(id))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := t.disk.Link(f.Name(), path); err != nil {
		return err
	}
	return t.disk.SyncDir(t.dir)
}

func wrapped(path, doing string, err error) error {
	if err == nil {
		return nil
	}
	return unavailable(path, doing, err)
}
