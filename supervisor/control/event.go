package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Event is something that happened: the same fact as a line of the log.
type Event struct {
	Seq        uint64    `json:"seq"` // counts up by one
	Time       time.Time `json:"time"`
	Level      string    `json:"level"` // debug, info, warn, error
	Service    string    `json:"service,omitempty"`
	Generation int       `json:"generation,omitempty"`
	PID        int       `json:"pid,omitempty"`
	Message    string    `json:"message"`
	Fields     Fields    `json:"fields,omitempty"`
}

// String is the event on one line, without its time.
func (e Event) String() string {
	var b strings.Builder
	b.WriteString(e.Message)
	sep := ": "
	add := func(k, v string) {
		b.WriteString(sep + k + "=")
		if strings.ContainsAny(v, " \t\"=\n") || v == "" {
			v = strconv.Quote(v)
		}
		b.WriteString(v)
		sep = " "
	}
	if e.Service != "" {
		add("service", e.Service)
	}
	if e.Generation != 0 {
		add("generation", strconv.Itoa(e.Generation))
	}
	if e.PID != 0 {
		add("pid", strconv.Itoa(e.PID))
	}
	for _, f := range e.Fields {
		add(f.Key, fmt.Sprint(f.Value))
	}
	return b.String()
}

// Fields are what else is known, in the order of the log line. In JSON they are
// one object.
type Fields []Field

// Field is one of them. Value is a string, an int64, a float64 or a bool.
type Field struct {
	Key   string
	Value any
}

// MakeFields turns the arguments of a log line into fields: durations and
// errors become text.
func MakeFields(args []any) Fields {
	var fs Fields
	for i := 0; i+1 < len(args); i += 2 {
		fs = append(fs, Field{Key: fmt.Sprint(args[i]), Value: plain(args[i+1])})
	}
	return fs
}

func plain(v any) any {
	switch v := v.(type) {
	case string, bool, int64, float64:
		return v
	case int:
		return int64(v)
	case uint16:
		return int64(v)
	case uint32:
		return int64(v)
	}
	return fmt.Sprint(v)
}

// Get is the value of key as text, "" where there is none.
func (fs Fields) Get(key string) string {
	for _, f := range fs {
		if f.Key == key {
			return fmt.Sprint(f.Value)
		}
	}
	return ""
}

// MarshalJSON writes an object in order.
func (fs Fields) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range fs {
		if i > 0 {
			b.WriteByte(',')
		}
		k, err := json.Marshal(f.Key)
		if err != nil {
			return nil, err
		}
		v, err := json.Marshal(plain(f.Value))
		if err != nil {
			return nil, err
		}
		b.Write(k)
		b.WriteByte(':')
		b.Write(v)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// UnmarshalJSON reads an object and keeps its order.
func (fs *Fields) UnmarshalJSON(text []byte) error {
	*fs = nil
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	t, err := d.Token()
	if err != nil || t == nil {
		return err
	}
	if t != json.Delim('{') {
		return errors.New("fields are no object")
	}
	for d.More() {
		k, err := d.Token()
		if err != nil {
			return err
		}
		var v any
		if err := d.Decode(&v); err != nil {
			return err
		}
		if n, ok := v.(json.Number); ok {
			if v, err = n.Int64(); err != nil {
				if v, err = n.Float64(); err != nil {
					return err
				}
			}
		}
		*fs = append(*fs, Field{Key: k.(string), Value: v})
	}
	return nil
}

// Line is one line that a service wrote.
type Line struct {
	Time       *time.Time `json:"time,omitempty"` // when it was read; nil when that is not known
	Service    string     `json:"service"`
	Generation int        `json:"generation"`
	Stream     string     `json:"stream,omitempty"` // stdout, stderr; "" when they are one
	Text       string     `json:"text"`             // without its line feed
}
