package main

import (
	"maps"
	"os"
	"slices"
)

// A namedFile is one that the configuration names, beside those of devices.
type namedFile struct {
	at, path string
	secret   bool // only its owner may read it
}

// files are what the configuration names: whoever may write to one of them
// decides who is believed, or who we are.
func (c *Config) files() (all []namedFile) {
	add := func(at string, paths ...string) {
		for _, p := range paths {
			if p != "" {
				all = append(all, namedFile{at: at, path: resolve(c.dir, p)})
			}
		}
	}
	add("trust", c.Trust)
	if a := c.issuer().Attestation; a != nil {
		add("issuer.attestation", a.EKRoots, a.EKIntermediates, a.EKList)
	}
	s := c.Serve
	if s == nil {
		return all
	}
	for _, name := range slices.Sorted(maps.Keys(s.Listeners)) {
		l := s.Listeners[name]
		add("serve.listeners."+name, l.Certificate, l.ClientCA)
		if l.Key != "" {
			all = append(all, namedFile{"serve.listeners." + name + ".key", resolve(c.dir, l.Key), true})
		}
	}
	if p := s.Provider; p != nil {
		add("serve.provider", p.Trust, p.PeerRoots, p.PeerCertificate)
		if p.PeerKey != "" {
			all = append(all, namedFile{"serve.provider.peer_key", resolve(c.dir, p.PeerKey), true})
		}
		for _, k := range p.Keys {
			add("serve.provider.keys", k.SenderCertificate, k.FrankCertificate)
			for _, b := range k.Before {
				add("serve.provider.keys.before", b.FrankCertificate)
			}
		}
		if p.Assets != nil {
			add("serve.provider.assets.ca_file", p.Assets.CAFile)
		}
		if p.OHTTP != nil && p.OHTTP.SecretFile != "" {
			all = append(all, namedFile{"serve.provider.ohttp.secret_file", resolve(c.dir, p.OHTTP.SecretFile), true})
		}
	}
	if s.Signer != nil {
		add("serve.signer.policy", s.Signer.Policy)
	}
	if s.TransparencyLog != nil {
		add("serve.transparency_log.witnesses", s.TransparencyLog.Witnesses)
	}
	if s.Issuer != nil && s.Issuer.Enrol != nil {
		add("serve.issuer.enrol.appliances", s.Issuer.Enrol.Appliances...)
	}
	return all
}

func (d *doctor) checkFile(f namedFile) {
	info, err := os.Stat(f.path)
	switch {
	case err != nil:
		d.add("", "", "file-missing", "put it there, or correct "+f.at, "%v", err)
	case f.secret && info.Mode().Perm()&0o077 != 0:
		d.add("", "", "key-file-open", "chmod 600 "+f.path+"; then consider the key known and replace it", "others may read %s (mode %04o)", f.path, info.Mode().Perm())
	case info.Mode().Perm()&0o022 != 0:
		d.add("", "", "file-writable", "chmod go-w "+f.path, "others may change %s of %s (mode %04o)", f.path, f.at, info.Mode().Perm())
	}
}
