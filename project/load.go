package project

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"

	"github.com/millrace/millrace/internal/failure"
)

// FileName is the project file in its folder.
const FileName = "millrace.yaml"

// DefaultPartitions is the partition count of topics that are created, where the project names none.
const DefaultPartitions = 8

// MaxPartitions bounds the partitions of one topic.
const MaxPartitions = 10000

// Load reads and checks the project in a folder. Its error is Faults (kind BadProject) when the project has any, all of them at once;
// a folder without a project file is an error of kind NotFound.
func Load(dir string) (*Project, error) { return loadFolder(dir, "") }

func loadFolder(dir, suffix string) (*Project, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, failure.Wrap(failure.NotFound, dir, "opening the project folder", err)
	}
	defer func() { _ = root.Close() }()
	src, err := root.ReadFile(FileName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, failure.Wrap(failure.NotFound, dir, "reading the project file", err).WithHint("a project is a folder with a %s", FileName)
	}
	if err != nil {
		return nil, failure.Wrap(failure.Internal, dir, "reading the project file", err)
	}
	files := map[string]string{FileName: string(src)}
	p, faults := load(src, func(name string) ([]byte, error) {
		text, err := root.ReadFile(name)
		if err == nil {
			files[name] = string(text)
		}
		return text, err
	}, suffix)
	if len(faults) > 0 {
		return nil, faults
	}
	p.Dir, p.Files = dir, files
	return p, nil
}

// LoadFiles is Load of a project's Files, for a project as it was when they were kept. It has no Dir.
func LoadFiles(files map[string]string) (*Project, error) {
	p, faults := load([]byte(files[FileName]), func(name string) ([]byte, error) {
		text, ok := files[name]
		if !ok {
			return nil, fs.ErrNotExist
		}
		return []byte(text), nil
	}, "")
	if len(faults) > 0 {
		return nil, faults
	}
	p.Files = files
	return p, nil
}

// load checks a project file; read gives the files it names, by their path in the folder. A suffix isolates the project.
func load(src []byte, read func(string) ([]byte, error), suffix string) (*Project, Faults) {
	l := &loader{project: &Project{}, read: read, suffix: suffix}
	if v := l.parseYAML(src); v.shape == mapping {
		l.top(v)
	} else if len(l.faults) == 0 {
		l.fault(1, 1, "", "a project file is a mapping that begins with project: <name>")
	}
	l.faults.sort()
	return l.project, l.faults
}

// loader gathers the project and its faults.
type loader struct {
	project *Project
	read    func(string) ([]byte, error)
	faults  Faults
	suffix  string // of the name of an isolated project; empty otherwise

	resolving  resolving
	badTables  map[string]bool // declared, but without a schema
	badSources map[string]bool // declared, but without a schema: what refers to them cannot be checked
	badGroups  map[string]bool // declared, but with faults: what refers to them is not reported on top
}

func (l *loader) fault(line, col int, hint, format string, args ...any) {
	l.faults = append(l.faults, Fault{File: FileName, Line: line, Col: col, Msg: fmt.Sprintf(format, args...), Hint: hint})
}

func (l *loader) faultAt(v value, hint, format string, args ...any) {
	l.fault(v.line, v.col, hint, format, args...)
}

func (l *loader) top(v value) {
	o := l.object(v, "the project", "project", "topic_prefix", "partitions", "clock", "tables", "sources", "features", "models", "batches")
	p := l.project
	p.Name = o.text("project")
	l.checkName(o.get("project"), "project", p.Name)
	if p.TopicPrefix = o.textOr("topic_prefix", ""); p.TopicPrefix != "" && !topicPattern.MatchString(p.TopicPrefix) {
		l.faultAt(o.get("topic_prefix"), "", "the topic prefix %q may have letters, digits, '.', '_' and '-' only", p.TopicPrefix)
	}
	p.Partitions = int32(o.integer("partitions", DefaultPartitions, 1, MaxPartitions))
	p.Clock = o.choice("clock", ClockWall, ClockEvent)
	l.isolate()
	l.badSources, l.badGroups = map[string]bool{}, map[string]bool{}
	l.tables(l.section(o, "tables", "table"))
	l.resolveAll(l.section(o, "sources", "source"), l.section(o, "features", "feature group"))
	l.models(l.section(o, "models", "model"))
	l.batches(l.section(o, "batches", "batch"))
	l.checkTopics()
}

// section is the named things of one kind.
func (l *loader) section(o object, key, what string) []entry {
	v := o.get(key)
	switch v.shape {
	case mapping:
	case absent, null, broken:
		if key == "sources" {
			o.needs(key, "")
		}
		return nil
	default:
		l.faultAt(v, "", "%s must be a mapping of names, not %s", key, shapeNames[v.shape])
		return nil
	}
	for _, e := range v.entries {
		l.checkName(value{line: e.line, col: e.col}, what, e.key)
	}
	return v.entries
}

// Names become parts of topics, of Redis keys, of folders and of metric labels.
var (
	namePattern  = regexp.MustCompile(`^[a-z][a-z0-9_]{0,99}$`)
	topicPattern = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,200}$`)
)

func (l *loader) checkName(at value, what, name string) {
	if name != "" && !namePattern.MatchString(name) {
		l.faultAt(at, "small letters, digits and underscores, beginning with a letter, at most 100", "%q cannot be the name of a %s", name, what)
	}
}

// checkTopics finds topics that two things would write to.
func (l *loader) checkTopics() {
	owner := map[string]string{".": "", "..": ""}
	for _, t := range l.project.Own().All() {
		owner[t.Name] = "Millrace itself"
	}
	for _, s := range l.project.Sources {
		if s.Topic == "" { // it is merged
			continue
		}
		if other, taken := owner[s.Topic]; taken {
			l.fault(s.Line, s.col, "", "source %s: the topic %q is that of %s", s.Name, s.Topic, other)
		}
		owner[s.Topic] = "source " + s.Name
	}
	for _, t := range l.project.Tables {
		if other, taken := owner[t.Topic]; taken && t.Topic != "" {
			l.fault(t.Line, t.col, "", "table %s: the topic %q is that of %s", t.Name, t.Topic, other)
		}
		owner[t.Topic] = "table " + t.Name
	}
	for _, g := range l.project.Groups {
		if other, taken := owner[g.KeyedTopic]; taken && !g.Direct {
			l.fault(g.Line, g.col, "", "feature group %s: its topic %q is that of %s", g.Name, g.KeyedTopic, other)
		}
	}
}
