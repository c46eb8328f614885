package schemas

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"unsafe"
)

// Texts is text by name, in the order of the names: a map, in Avro and in JSON, that is a few times cheaper to make and to read than Go's.
type Texts []NamedText

// NamedText is one of Texts.
type NamedText struct{ Name, Text string }

// Get is the text of a name; false when there is none.
func (t Texts) Get(name string) (text string, ok bool) {
	i, ok := slices.BinarySearchFunc(t, name, func(n NamedText, name string) int { return strings.Compare(n.Name, name) })
	if !ok {
		return "", false
	}
	return t[i].Text, true
}

// MarshalJSON writes an object.
func (t Texts) MarshalJSON() ([]byte, error) {
	object := make(map[string]string, len(t))
	for _, n := range t {
		object[n.Name] = n.Text
	}
	return json.Marshal(object)
}

// UnmarshalJSON reads an object.
func (t *Texts) UnmarshalJSON(text []byte) error {
	var object map[string]string
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&object); err != nil {
		return err
	}
	*t = (*t)[:0]
	for name, text := range object {
		*t = append(*t, NamedText{name, text})
	}
	t.sort()
	return nil
}

func (t Texts) sort() {
	slices.SortFunc(t, func(a, b NamedText) int { return strings.Compare(a.Name, b.Name) })
}

// bindTexts writes and reads an Avro map of strings.
func bindTexts() binding {
	return binding{
		write: func(b []byte, at unsafe.Pointer) (_ []byte, err error) {
			texts := (*Texts)(at)
			if len(*texts) == 0 {
				return append(b, 0), nil
			}
			b = appendLong(b, int64(len(*texts)))
			for _, n := range *texts {
				if b, err = appendText(b, n.Name); err != nil {
					return nil, err
				}
				if b, err = appendText(b, n.Text); err != nil {
					return nil, err
				}
			}
			return append(b, 0), nil
		},
		read: func(r *reader, v reflect.Value) bool {
			texts := v.Addr().Interface().(*Texts)
			ok := r.blocks(2, func(count int) bool {
				*texts = slices.Grow(*texts, count)
				for range count {
					name, named := r.string()
					text, there := r.string()
					if !named || !there {
						return false
					}
					*texts = append(*texts, NamedText{name, text})
				}
				return true
			})
			if ok && !slices.IsSortedFunc(*texts, func(a, b NamedText) int { return strings.Compare(a.Name, b.Name) }) {
				texts.sort()
			}
			return ok
		},
	}
}
