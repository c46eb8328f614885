package dataset

import (
	"os"
	"path/filepath"
)

// partial makes the file that is to become path when it is whole, beside it. Those that processes which died have left there are deleted: a file that
// is being written is held by a lock which ends with its process.
func partial(path string) (*os.File, error) {
	pattern := "." + filepath.Base(path) + "-*.tmp"
	left, err := filepath.Glob(filepath.Join(globbed(filepath.Dir(path)), globbed("."+filepath.Base(path))+"-*.tmp"))
	if err != nil {
		return nil, err
	}
	for _, name := range left {
		discard(name)
	}
	for {
		f, err := os.CreateTemp(filepath.Dir(path), pattern)
		if err != nil {
			return nil, err
		}
		hold(f)
		mine, err := f.Stat()
		if there, gone := os.Stat(f.Name()); err == nil && gone == nil && os.SameFile(mine, there) {
			return f, nil
		}
		_ = f.Close() // somebody took it for left behind before it was held
		if err != nil {
			return nil, err
		}
	}
}

// discard deletes a file that nobody holds.
func discard(name string) {
	f, err := os.Open(name)
	if err != nil {
		return
	}
	defer f.Close()
	if hold(f) {
		_ = os.Remove(name) // it takes room only
	}
}

// globbed is a path as a pattern that matches nothing else.
func globbed(path string) string {
	var pattern []byte
	for i := range len(path) {
		switch path[i] {
		case '*', '?', '[', '\\':
			pattern = append(pattern, '\\')
		}
		pattern = append(pattern, path[i])
	}
	return string(pattern)
}
