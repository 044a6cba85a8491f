// Command generate writes the OpenAPI document of a descriptor set, whose last
// file is the API, to standard output.
package main

import (
	"fmt"
	"os"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/privyseal/privyseal/signer/api/openapi"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: generate DESCRIPTOR-SET")
	}
	b, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(b, &set); err != nil {
		return err
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		return err
	}
	last, err := files.FindFileByPath(set.File[len(set.File)-1].GetName())
	if err != nil {
		return err
	}
	return write(last)
}

func write(file protoreflect.FileDescriptor) error {
	doc, err := openapi.Generate(file)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(doc)
	return err
}
