package offline

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/millrace/millrace/internal/failure"
)

const (
	logDir    = "_log"
	stagedDir = "_tmp"
)

// entry is one step of a partition's log. Step n is the file _log/<partition>/<n>.json, which is made whole and exclusively
// (link(2) onto a name that must not exist), so that of two writers one wins and the other knows.
//
// A claim takes the partition: it moves nothing, but from then on no earlier writer can add the next step. A commit adds the rows of
// [First, End), which are in Files.
type entry struct {
	Partition int32       `json:"partition"`
	Writer    string      `json:"writer"` // random: tells the entry of one writer from another's
	Claim     bool        `json:"claim,omitempty"`
	First     int64       `json:"first"`
	End       int64       `json:"end"`
	Files     []entryFile `json:"files,omitempty"`
}

// entryFile is a file of a commit.
type entryFile struct {
	Path   string `json:"path"`   // in the table's folder, slashes
	Staged string `json:"staged"` // where it lay when the commit was made, and lies until its owner (or the next) has moved it
	Rows   int64  `json:"rows"`
	Bytes  int64  `json:"bytes"`
	CRC32C uint32 `json:"crc32c"` // of all its bytes (Castagnoli)
	From   int64  `json:"from"`   // event time of the first row
	Until  int64  `json:"until"`  // one past the event time of the last row
}

func (e *entry) rows() (n int64) {
	for _, f := range e.Files {
		n += f.Rows
	}
	return n
}

// chain is what is known of a partition's log; entries never change, so it only grows.
type chain struct {
	entries []entry
}

// end is the offset up to which everything is committed.
func (c *chain) end() int64 {
	if len(c.entries) == 0 {
		return 0
	}
	return c.entries[len(c.entries)-1].End
}

// lastCommit is the newest entry that has files, if any. All before it have been moved into place by who made the following ones.
func (c *chain) lastCommit() *entry {
	for i := len(c.entries) - 1; i >= 0; i-- {
		if !c.entries[i].Claim {
			return &c.entries[i]
		}
	}
	return nil
}

func (t *Table) logPath(partition int32, step int) string {
	return filepath.Join(t.dir, logDir, strconv.Itoa(int(partition)), fmt.Sprintf("%020d.json", step))
}

// chain reads what is new in a partition's log. The steps are numbered without gaps, so it need not list the folder.
func (t *Table) chain(partition int32) (chain, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.chains[partition]
	for {
		path := t.logPath(partition, len(c.entries))
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			t.chains[partition] = c
			return c, nil
		}
		if err != nil {
			return chain{}, failure.Wrap(failure.Unavailable, "", "reading offline commit", err)
		}
		e, err := parseEntry(path, text)
		if err != nil {
			return chain{}, err
		}
		if e.Partition != partition || e.First != c.end() || e.End < e.First || e.Claim && (e.End != e.First || len(e.Files) > 0) {
			return chain{}, failure.New(failure.Corrupt, path, "the commit [%d, %d) of partition %d does not follow %d of partition %d",
				e.First, e.End, e.Partition, c.end(), partition)
		}
		c.entries = append(c.entries, e)
	}
}

func parseEntry(path string, text []byte) (entry, error) {
	var e entry
	if err := json.Unmarshal(text, &e); err != nil {
		return e, failure.Wrap(failure.Corrupt, path, "reading offline commit", err)
	}
	for _, f := range e.Files {
		if !filepath.IsLocal(f.Path) || !filepath.IsLocal(f.Staged) {
			return e, failure.New(failure.Corrupt, path, "the commit names a file outside the table: %s", f.Path)
		}
	}
	return e, nil
}

// errTaken says that a step of the log is somebody else's.
var errTaken = errors.New("the step is taken")

// addEntry makes e the given step of its partition's log, durably, or returns errTaken; claim is the step at which its writer claimed the
// partition. It may be called again after an error: the step then already being e counts as done.
func (t *Table) addEntry(claim, step int, e entry) error {
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	path := t.logPath(e.Partition, step)
	if err := t.disk.MkdirAll(filepath.Dir(path)); err != nil {
		return err
	}
	staged, err := t.writeStaged(e.Partition, claim, func(f file) error {
		_, err := f.Write(text)
		return err
	})
	if err != nil {
		return err
	}
	err = t.disk.Link(staged, path)
	_ = t.disk.Remove(staged) // in vain at worst: owners clear what lies in _tmp
	if err != nil {
		// Also when staged is gone: a later owner cleared it, and the step is that owner's.
		there, notThere := os.ReadFile(path)
		if notThere != nil {
			return err
		}
		if string(there) != string(text) {
			return errTaken
		}
	}
	for _, dir := range []string{filepath.Dir(path), filepath.Join(t.dir, logDir), t.dir} {
		if err := t.disk.SyncDir(dir); err != nil {
			return err
		}
		if !e.Claim {
			break // the folders above were made durable with the claim
		}
	}
	return nil
}

// writeStaged makes a new durable file under _tmp and returns its path; after an error there is none. The name tells the partition and
// the step at which its writer claimed it.
func (t *Table) writeStaged(partition int32, claim int, write func(file) error) (string, error) {
	dir := filepath.Join(t.dir, stagedDir)
	if err := t.disk.MkdirAll(dir); err != nil {
		return "", err
	}
	f, err := t.disk.Create(dir, fmt.Sprintf("%d-%d-*.tmp", partition, claim))
	if err != nil {
		return "", err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		_ = t.disk.Remove(f.Name()) // the cause matters more; owners clear what is left
		return "", err
	}
	return f.Name(), nil
}

// clearStaged removes what earlier owners of a partition left under _tmp. Files of owners that claimed it at or after the given step
// stay: they may be about to be committed.
func (t *Table) clearStaged(partition int32, claim int) error {
	dir := filepath.Join(t.dir, stagedDir)
	names, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range names {
		var p int32
		var c int
		if n, _ := fmt.Sscanf(name.Name(), "%d-%d-", &p, &c); n != 2 || p != partition || c > claim {
			continue
		}
		if err := t.disk.Remove(filepath.Join(dir, name.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// publish moves a commit's files to where everybody sees them. It may be called again, and by several at once.
func (t *Table) publish(e *entry) error {
	days := map[string]bool{}
	for _, f := range e.Files {
		path := filepath.Join(t.dir, f.Path)
		if err := t.disk.MkdirAll(filepath.Dir(path)); err != nil {
			return err
		}
		err := t.disk.Rename(filepath.Join(t.dir, f.Staged), path)
		if errors.Is(err, fs.ErrNotExist) {
			_, err = os.Stat(path) // moved already?
		}
		if err != nil {
			return err
		}
		days[filepath.Dir(path)] = true
	}
	for day := range days {
		if err := t.disk.SyncDir(day); err != nil {
			return err
		}
	}
	return t.disk.SyncDir(t.dir)
}
