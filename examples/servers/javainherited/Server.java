import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;

/** The listening socket is descriptor 0, as from inetd with "wait": System.inheritedChannel(). */
public class Server {
    public static void main(String[] arguments) throws IOException {
        ServerSocketChannel server = (ServerSocketChannel) System.inheritedChannel();
        for (;;) {
            SocketChannel client = server.accept();
            new Thread(() -> answer(client)).start();
        }
    }

    private static void answer(SocketChannel client) {
        try (client) {
            client.read(ByteBuffer.allocate(4096));
            client.write(ByteBuffer.wrap(
                "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n".getBytes()));
        } catch (IOException e) {
            // The client has gone.
        }
    }
}
