// A CSI driver for tests: volumes are file systems in memory (tmpfs) on this machine, so that every node of the test
// cluster can mount every volume, volumes can be full, and they really grow. Growing a mounted ext4 needs a capability
// (CAP_SYS_RESOURCE) that many test machines lack; growing a tmpfs does not.
//
// usage: csi-host-path -node NAME -root FOLDER -listen SOCKET -register FOLDER
//
// One process serves one node, and any of them serves the controller's part. A class's parameter `grows: stopped`
// makes file systems grow only while no pod uses them, as some drivers do; the default is to grow them in use.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const (
	name = "growing.e2e.rqlite.dev"
	// The smallest volume.
	smallest = 1 << 20
)

type driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer
	node, root, endpoint string
}

func main() {
	d := &driver{}
	var register string
	flag.StringVar(&d.node, "node", "", "name of the node")
	flag.StringVar(&d.root, "root", "", "folder of all volumes")
	flag.StringVar(&d.endpoint, "listen", "", "socket of the driver")
	flag.StringVar(&register, "register", "", "folder in which the kubelet looks for plugins")
	flag.Parse()
	if err := os.MkdirAll(d.root, 0o700); err != nil {
		log.Fatal(err)
	}
	go serve(filepath.Join(register, name+"-reg.sock"), func(s *grpc.Server) { registration.RegisterRegistrationServer(s, d) })
	serve(d.endpoint, func(s *grpc.Server) {
		csi.RegisterIdentityServer(s, d)
		csi.RegisterControllerServer(s, d)
		csi.RegisterNodeServer(s, d)
	})
}

func serve(socket string, add func(*grpc.Server)) {
	_ = os.Remove(socket)
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		reply, err := handle(ctx, request)
		if err != nil {
			log.Printf("%s %v: %v", info.FullMethod, request, err)
		}
		return reply, err
	}))
	add(server)
	log.Fatal(server.Serve(listener))
}

func run(program string, args ...string) (string, error) {
	out, err := exec.Command(program, args...).CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return text, status.Errorf(codes.Internal, "%s %s: %v: %s", program, strings.Join(args, " "), err, text)
	}
	return text, nil
}

// The file system of a volume. An id is a name that the provisioner made; it never leads out of the folder.
func (d *driver) volume(id string) (string, error) {
	if id == "" || strings.ContainsAny(id, "/") || strings.HasPrefix(id, ".") {
		return "", status.Errorf(codes.InvalidArgument, "volume id %q", id)
	}
	return filepath.Join(d.root, id), nil
}

// Sizes on record: a file system may have to grow later than the volume.
func sizeFile(volume string) string { return volume + ".size" }

func writeSize(volume string, bytes int64) error {
	return os.WriteFile(sizeFile(volume), []byte(strconv.FormatInt(bytes, 10)), 0o600)
}

func resize(volume string) error {
	bytes, err := os.ReadFile(sizeFile(volume))
	if err != nil {
		return status.Error(codes.NotFound, err.Error())
	}
	_, err = run("mount", "-o", "remount,size="+string(bytes), volume)
	return err
}

// The size of a mounted volume, 0 if that is unknown.
func size(volume string) int64 {
	var found syscall.Statfs_t
	if syscall.Statfs(volume, &found) != nil {
		return 0
	}
	return int64(found.Blocks) * found.Bsize
}

// Where a volume is mounted besides its own place: in pods.
func places(volume string) ([]string, error) {
	all, err := run("findmnt", "-rno", "TARGET", "--source", filepath.Base(volume))
	var others []string
	for _, place := range strings.Fields(all) {
		if place != volume {
			others = append(others, place)
		}
	}
	return others, err
}

// Kubelet's plugin registration.

func (d *driver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: name, Endpoint: d.endpoint, SupportedVersions: []string{"1.0.0"}}, nil
}

func (d *driver) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if !s.PluginRegistered {
		log.Fatalf("the kubelet does not register the driver: %s", s.Error)
	}
	return &registration.RegistrationStatusResponse{}, nil
}

// Identity.

func (d *driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: name, VendorVersion: "1"}, nil
}

func (d *driver) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

func (d *driver) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{
		{Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{Type: csi.PluginCapability_Service_CONTROLLER_SERVICE}}},
		{Type: &csi.PluginCapability_VolumeExpansion_{VolumeExpansion: &csi.PluginCapability_VolumeExpansion{Type: csi.PluginCapability_VolumeExpansion_ONLINE}}},
	}}, nil
}

// Controller.

func (d *driver) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	reply := &csi.ControllerGetCapabilitiesResponse{}
	for _, kind := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME, csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
	} {
		reply.Capabilities = append(reply.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: kind}},
		})
	}
	return reply, nil
}

func (d *driver) CreateVolume(_ context.Context, r *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	volume, err := d.volume(r.Name)
	if err != nil {
		return nil, err
	}
	bytes := max(r.GetCapacityRange().GetRequiredBytes(), smallest)
	if !mounted(volume) {
		if err := writeSize(volume, bytes); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
		if err := mount(volume, "-t", "tmpfs", "-o", fmt.Sprintf("mode=0777,size=%d", bytes), filepath.Base(volume)); err != nil {
			return nil, err
		}
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: r.Name, CapacityBytes: bytes, VolumeContext: map[string]string{"grows": r.Parameters["grows"]}}}, nil
}

func (d *driver) DeleteVolume(_ context.Context, r *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	volume, err := d.volume(r.VolumeId)
	if err != nil {
		return nil, err
	}
	if err := unmount(volume); err != nil {
		return nil, err
	}
	for _, file := range []string{volume, sizeFile(volume), volume + ".stopped"} {
		if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
			return nil, status.Error(codes.Internal, err.Error())
		}
	}
	return &csi.DeleteVolumeResponse{}, nil
}

func (d *driver) ValidateVolumeCapabilities(_ context.Context, r *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{VolumeCapabilities: r.VolumeCapabilities}}, nil
}

func (d *driver) ControllerExpandVolume(_ context.Context, r *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	volume, err := d.volume(r.VolumeId)
	if err != nil {
		return nil, err
	}
	bytes := r.GetCapacityRange().GetRequiredBytes()
	if err := writeSize(volume, bytes); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: bytes, NodeExpansionRequired: true}, nil
}

// Node.

func (d *driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.node}, nil
}

func (d *driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	reply := &csi.NodeGetCapabilitiesResponse{}
	for _, kind := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
	} {
		reply.Capabilities = append(reply.Capabilities, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: kind}},
		})
	}
	return reply, nil
}

func mounted(path string) bool {
	return exec.Command("mountpoint", "-q", path).Run() == nil
}

func mount(path string, args ...string) error {
	if err := os.MkdirAll(path, 0o750); err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	if mounted(path) {
		return nil
	}
	_, err := run("mount", append(args, path)...)
	return err
}

func unmount(path string) error {
	if mounted(path) {
		if _, err := run("umount", path); err != nil {
			return err
		}
	}
	return nil
}

// There is no staging: the kubelet would take the volume's own place for another user of the device, and never unstage.
func (d *driver) NodePublishVolume(_ context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	volume, err := d.volume(r.VolumeId)
	if err != nil {
		return nil, err
	}
	if r.VolumeContext["grows"] == "stopped" {
		// Kubelet's request to grow does not carry the context.
		if err := os.WriteFile(volume+".stopped", nil, 0o600); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
	}
	others, err := places(volume)
	if err != nil {
		return nil, err
	}
	kubelet, _, _ := strings.Cut(r.TargetPath, "/pods/")
	for _, place := range others {
		if !strings.HasPrefix(place, kubelet+"/") {
			// As a disk that is still attached to another machine.
			return nil, status.Errorf(codes.FailedPrecondition, "the volume is in use at %s", place)
		}
	}
	if len(others) == 0 {
		// Not in use yet: a file system that was to grow meanwhile grows now.
		if err := resize(volume); err != nil {
			return nil, err
		}
	}
	return &csi.NodePublishVolumeResponse{}, mount(r.TargetPath, "--bind", volume)
}

func (d *driver) NodeUnpublishVolume(_ context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := unmount(r.TargetPath); err != nil {
		return nil, err
	}
	if err := os.Remove(r.TargetPath); err != nil && !os.IsNotExist(err) {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (d *driver) NodeExpandVolume(_ context.Context, r *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	volume, err := d.volume(r.VolumeId)
	if err != nil {
		return nil, err
	}
	bytes := r.GetCapacityRange().GetRequiredBytes()
	if _, err := os.Stat(volume + ".stopped"); err == nil {
		others, err := places(volume)
		if err != nil {
			return nil, err
		}
		if len(others) > 0 && size(volume) < bytes {
			return nil, status.Error(codes.FailedPrecondition, "this class's file systems do not grow while a pod uses them")
		}
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: bytes}, resize(volume)
}
